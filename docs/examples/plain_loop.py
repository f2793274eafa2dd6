"""Fine-tune a ResNet-18 on a folder of photos in plain PyTorch: train/<class>/*.jpg and val/<class>/*.jpg."""

import math
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models
from torchvision.transforms import v2


def main(root: str, epochs: int = 5, size: int = 224, pretrained: bool = True) -> float:
    torch.manual_seed(0)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    finish.append(v2.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    augmented = v2.Compose([v2.RandomResizedCrop(size, scale=(0.4, 1.0)), v2.RandomHorizontalFlip(), *finish])
    plain = v2.Compose([v2.Resize(size), v2.CenterCrop(size), *finish])
    train = datasets.ImageFolder(f"{root}/train", augmented)
    val = datasets.ImageFolder(f"{root}/val", plain)
    assert train.classes == val.classes
    train_loader = DataLoader(train, batch_size=32, shuffle=True, drop_last=True)
    val_loader = DataLoader(val, batch_size=32)

    model = models.resnet18(weights=models.ResNet18_Weights.DEFAULT if pretrained else None)
    model.fc = nn.Linear(model.fc.in_features, len(train.classes))
    for stage in (model.conv1, model.bn1, model.layer1, model.layer2):
        stage.requires_grad_(False)
    model.to(device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=0.005, momentum=0.9, weight_decay=1e-4)
    steps = epochs * len(train_loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: (1 + math.cos(math.pi * i / steps)) / 2)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    best = 0.0
    for epoch in range(epochs):
        model.train()
        for stage in (model.bn1, model.layer1, model.layer2):
            stage.eval()  # or the frozen stages' running statistics go on moving
        for images, labels in train_loader:
            with torch.autocast(device.type, torch.bfloat16):
                loss = criterion(model(images.to(device)), labels.to(device))
            if not math.isfinite(loss.item()):
                raise SystemExit(f"the loss is not finite in epoch {epoch + 1}")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        right = 0
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
            for images, labels in val_loader:
                right += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
        accuracy = right / len(val)
        print(f"epoch {epoch + 1}: accuracy {accuracy:.4f}")
        if accuracy > best:
            best = accuracy
            torch.save({"model": model.state_dict(), "classes": train.classes}, "best.pt")
    return best


if __name__ == "__main__":
    main(sys.argv[1])
