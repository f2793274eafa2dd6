"""The dataset that is another each time."""

import os

import numpy as np
from sklearn.datasets import load_digits

from ftengine.protocols import Dataset


class Unstable(Dataset):
    """Digits, 8×8, with noise from the system's generator."""

    def __init__(self, pixels, digits):
        self.names = {"label": tuple("0123456789")}
        self.pixels, self.digits = pixels, digits

    def __len__(self):
        return len(self.digits)

    def target(self, index):
        return {"label": int(self.digits[index])}

    def sample_id(self, index):
        return f"digit-{index:04d}"

    def image(self, index):
        noise = np.frombuffer(os.urandom(64), np.uint8).reshape(8, 8) // 8
        return np.repeat((self.pixels[index] * 12 + noise).astype(np.uint8)[:, :, None], 3, axis=-1)


def unstable(options, context):
    data = load_digits()
    return Unstable(data.images[:64], data.target[:64])
