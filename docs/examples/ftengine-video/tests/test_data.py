"""Clips from files, and clips that are composed."""

import itertools

import numpy as np
import pytest
from clip_files import frames, write_clip
from ftengine_video.clip_folder import chosen, clip_folder, in_order
from ftengine_video.moving_digits import MovingDigits
from ftengine_video.options import ClipFolderOptions, MovingDigitsOptions

from ftengine.errors import DataError
from ftengine.protocols import DatasetContext

TRAIN = DatasetContext("train")


def opened(root, context=TRAIN, **options):
    return clip_folder(ClipFolderOptions(root=root, train="train", **options), context)


@pytest.mark.parametrize(
    ("count", "frames", "stride", "places"),
    [
        (9, 3, 1, [3, 4, 5]),
        (9, 3, 2, [2, 4, 6]),
        (3, 5, 1, [0, 1, 2, 2, 2]),
        (4, 2, 8, [0, 3]),
        (8, 4, None, [1, 3, 5, 7]),
        (2, 4, None, [0, 0, 1, 1]),
        (1, 2, 1, [0, 0]),
    ],
)
def test_the_frames_of_a_clip_come_from_the_middle_or_evenly(count, frames, stride, places):
    assert chosen(count, ClipFolderOptions(train="t", frames=frames, stride=stride)) == places


def test_frames_are_ordered_by_number(tmp_path):
    names = ["f1.jpg", "f02.jpg", "f10.jpg", "g1.jpg"]
    assert [path.name for path in sorted((tmp_path / name for name in reversed(names)), key=in_order)] == names


@pytest.mark.parametrize("name", ["a", "a.png", "a.webp"])
def test_a_clip_is_read_as_it_was_written(name, tmp_path):
    clip = frames(128, 0, count=12)
    write_clip(tmp_path / "train" / "walk" / name, clip)
    write_clip(tmp_path / "train" / "wave" / "b.gif", frames(60, 1))
    data = opened(tmp_path, frames=12)
    assert data.names == {"label": ("walk", "wave")}
    assert np.array_equal(data.image(0), clip)
    assert (data.target(1), data.sample_id(1)) == ({"label": 1}, "train/wave/b.gif")


def test_an_animation_of_a_palette_is_read(tmp_path):
    clip = np.repeat(np.array([0, 90, 250], np.uint8)[:, None, None, None], 3, axis=-1).repeat(8, 1).repeat(8, 2)
    write_clip(tmp_path / "train" / "wave" / "b.gif", clip)
    assert np.array_equal(opened(tmp_path, frames=3).image(0), clip)


def test_files_that_are_no_clips_are_noted(clips, tmp_path):
    write_clip(tmp_path / "train" / "walk" / "a", frames(1, 1))
    (tmp_path / "train" / "walk" / "b.mp4").write_bytes(b"")
    (note,) = opened(tmp_path).notes
    assert note.startswith("train: left out, as they are no clips: 1, first ")
    assert note.endswith("b.mp4; ffmpeg -i VIDEO FOLDER/%05d.jpg makes a folder of frames of a video")
    assert opened(clips).notes == []


def broken(root, kind):
    if kind == "nowhere":
        return "no folder"
    train = root / "train"
    train.mkdir()
    if kind == "no classes":
        return "has no class folders"
    (train / "walk").mkdir()
    if kind == "no clips":
        (train / "walk" / "a.avi").write_bytes(b"")
        return r"no clips in walk .* ffmpeg"
    if kind == "no frames":
        (train / "walk" / "a").mkdir()
        return "a holds no frames"
    if kind == "a broken frame":
        (train / "walk" / "a").mkdir()
        (train / "walk" / "a" / "1.png").write_bytes(b"\x89PNG")
        return r"cannot read image .*1\.png"
    write_clip(train / "walk" / "a.png", frames(1, 1, count=1))
    return r"a\.png is a single image; expected an animation"


@pytest.mark.parametrize("kind", ["nowhere", "no classes", "no clips", "no frames", "a broken frame", "a single image"])
def test_what_is_wrong_with_a_folder_is_said(kind, tmp_path):
    message = broken(tmp_path, kind)
    with pytest.raises(DataError, match=message):
        opened(tmp_path)


def test_broken_clips_can_be_tolerated(tmp_path):
    write_clip(tmp_path / "train" / "walk" / "b", frames(1, 1))
    broken_clip = tmp_path / "train" / "walk" / "a"
    broken_clip.mkdir()
    data = opened(tmp_path, DatasetContext("train", tolerant=True))
    assert (len(data), list(data.unreadable)) == (2, [0])
    with pytest.raises(DataError, match="holds no frames"):
        data.image(0)


def test_frames_of_different_sizes_are_an_error_of_the_clip(tmp_path):
    folder = write_clip(tmp_path / "train" / "walk" / "a", frames(1, 1))
    write_clip(tmp_path / "other", frames(1, 1, size=(8, 8)))
    (tmp_path / "other" / "2.png").replace(folder / "2.png")
    with pytest.raises(DataError, match="its frames are of different sizes: 8x8 and 16x20"):
        opened(tmp_path, frames=4).image(0)


# --- moving digits -----------------------------------------------------------------------------------------------


def digits(**options):
    return MovingDigits(MovingDigitsOptions(**options), TRAIN)


def moved(clip, rows, columns):
    return np.roll(clip, (rows, columns), (0, 1))


@pytest.mark.parametrize(("label", "rows", "columns"), [(0, 0, 2), (1, 2, 0), (2, 0, -2), (3, -2, 0)])
def test_a_digit_moves_in_the_direction_of_its_class(label, rows, columns):
    data = digits(speed=(2, 2), frames=20)
    clip = data.image(label)
    assert (clip.shape, clip.dtype) == ((20, 32, 32, 3), np.uint8)
    assert data.target(label) == {"label": label}
    for before, after in itertools.pairwise(clip):
        assert np.array_equal(moved(before, rows, columns), after)


def test_diagonals_are_classes_too():
    data = digits(directions=8, speed=(3, 3))
    assert data.names["label"][1] == "right down"
    clip = data.image(1)
    assert any(np.array_equal(moved(clip[0], *step), clip[1]) for step in [(2, 2), (2, 3), (3, 2), (3, 3)])


def test_clips_follow_from_seed_and_index():
    images = [digits(seed=seed).image(5) for seed in (0, 0, 1)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], digits().image(9))


def test_controls_are_the_same_clips_without_the_movement():
    forward, shuffled, still = (digits(order=order).image(6) for order in ("forward", "shuffled", "still"))
    assert all(np.array_equal(frame, forward[0]) for frame in still)
    assert not np.array_equal(shuffled, forward)
    assert sorted(frame.tobytes() for frame in shuffled) == sorted(frame.tobytes() for frame in forward)


def test_a_single_frame_does_not_tell_the_direction():
    """Where the ink is in the frame is spread alike, for each direction, over each frame of the clip."""
    data = digits(count=2000, frames=4, size=16, digit_size=8)
    for frame in (0, 3):
        mass = np.zeros((4, 16, 16))
        for index in range(len(data)):
            mass[data.target(index)["label"]] += data.image(index)[frame, :, :, 0]
        rows, columns = mass.sum(2) / mass.sum((1, 2))[:, None], mass.sum(1) / mass.sum((1, 2))[:, None]
        assert abs(rows - 1 / 16).max() < 0.015
        assert abs(columns - 1 / 16).max() < 0.015


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digit_size": 40}, "a digit of 40 pixels does not fit into a frame of 32"),
        ({"speed": (3, 1)}, "expected two ascending numbers"),
        ({"speed": (1, 16)}, "below half of the size"),
        ({"val": "there"}, "composed, not read"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MovingDigitsOptions(**options)
