"""Tasks that draw and write, without a network: for tests of what becomes of predictions."""

from __future__ import annotations

import numpy as np
import torch

from ftengine.pictures import draw_boxes, overlay
from ftengine.protocols import Dataset, Task

NAMES = ("cat", "dog")


class Plain(Task):
    """Says a number of each image, and draws nothing."""

    def fit(self, data):
        raise NotImplementedError

    def state(self):
        return {}

    def load_state(self, state):
        raise NotImplementedError

    def encoder(self, data, place):
        return lambda target: target

    def describe(self, prediction):
        return {"number": round(float(prediction["number"]), 4)}


class Boxes(Plain):
    def describe(self, prediction):
        return {"boxes": len(prediction["boxes"])}

    def records(self, prediction, image_id):
        rows = zip(prediction["boxes"].tolist(), prediction["scores"].tolist(), strict=True)
        return [{"image_id": image_id, "category_id": 1, "bbox": box, "score": score} for box, score in rows]

    def draw(self, image, prediction):
        boxes = prediction["boxes"].numpy()
        return draw_boxes(image, boxes, np.zeros(len(boxes), int), ["cat"] * len(boxes))

    def perfect(self, encoded):
        boxes = torch.from_numpy(encoded["boxes"])
        return {"boxes": boxes, "scores": torch.ones(len(boxes))}


class Masks(Plain):
    def describe(self, prediction):
        return {"classes": int(prediction["mask"].max())}

    def index_map(self, prediction):
        return prediction["mask"].numpy()

    def draw(self, image, prediction):
        return overlay(image, prediction["mask"].numpy(), NAMES)

    def perfect(self, encoded):
        return {"mask": torch.from_numpy(encoded["mask"])}


class Squares(Dataset):
    """Grey images of 30 × 40, each with a white square that has a box and is class 1 of the mask."""

    def __init__(self, ids):
        self.sample_ids = ids
        self.names = {"boxes": NAMES, "mask": NAMES}

    def __len__(self):
        return len(self.sample_ids)

    def sample_id(self, index):
        return self.sample_ids[index]

    def target(self, index):
        return {"boxes": np.array([[5.0, 5.0, 15.0 + index, 15.0]])}

    def mask(self, index):
        mask = np.zeros((30, 40), np.uint8)
        mask[5:15, 5 : 15 + index] = 1
        return mask

    def image(self, index):
        image = np.full((30, 40, 3), 128, np.uint8)
        image[self.mask(index) == 1] = 255
        return image


def boxes_of(count):
    """A prediction of `count` boxes whose scores have all the digits of a float32."""
    corners = torch.arange(count * 4, dtype=torch.float32).reshape(count, 4) / 3
    return {"boxes": corners, "scores": torch.linspace(0.9, 0.1, count)}


def mask_of(value):
    return {"mask": torch.full((30, 40), value, dtype=torch.uint8)}
