"""ftengine: fine-tuning of pretrained vision models, with every component a plugin."""
