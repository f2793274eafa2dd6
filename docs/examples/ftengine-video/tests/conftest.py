"""What the tests share: clips in files."""

import pytest
from clip_files import frames, write_clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder with ``train/<class>/<video>``, two classes of eight videos, folders of frames and animations."""
    root = tmp_path_factory.mktemp("clips")
    for name, brightness in (("dark", 40), ("light", 200)):
        for video in range(8):
            suffix = (".png", "", ".webp", "")[video % 4]
            write_clip(root / "train" / name / f"{video}{suffix}", frames(brightness, video))
    return root
