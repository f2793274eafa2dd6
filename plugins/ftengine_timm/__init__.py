"""Any timm model that offers features, as a backbone with ordered stages."""
