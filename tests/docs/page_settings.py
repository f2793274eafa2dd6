"""What the pages take for granted: the reader's images, published weights that were downloaded, a package installed.

And how a command is made smaller, so that the tests can wait for it: options behind its own, which win over them.
"""

import json
import shutil
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from doc_pages import ROOT
from PIL import Image

from ftengine.scaffold.package import package

COLOURS = ((40, 40, 200), (200, 160, 40))
BOX = (8, 10, 40, 44)


@dataclass(frozen=True)
class Setting:
    """`prepare(folder)` makes what is there before; `weights`: published ones; `smaller`: beginnings of commands.

    `alike` are names that a shown line may have one instead of another of, such as the classes in a prediction.
    """

    prepare: tuple = ()
    weights: tuple[str, ...] = ()
    smaller: dict[str, str] = field(default_factory=dict)
    alike: tuple[str, ...] = ()


def picture(path, number=0, side=64):
    """A noisy image with a bright or a dark square in it; the class that is learned is which of both."""
    noise = np.random.default_rng(number).integers(0, 60, (side, side, 3))
    x, y, right, bottom = BOX
    noise[y:bottom, x:right] += np.array(COLOURS[number % 2]) // 2
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise.astype(np.uint8)).save(path)


def photos(folder):
    for number in range(12):
        picture(folder / "photos" / f"{number}.png", number)


def insects(folder):
    """The README's photos, and the one that it predicts."""
    for number in range(60):
        picture(folder / "photos" / "train" / ("ants", "bees")[number % 2] / f"{number}.jpg", number)
    picture(folder / "new-photos" / "1053149811_f62a3410d3.jpg")
    (folder / "bad.yaml").write_text(
        "task: classification\ndata: digits\nbackbone: resnet81\nmetrics: [accurracy]\ntrain: {epoch: 3}\n"
    )


def coco(root, split, name):
    """Eight images with a box each, and COCO's file of them."""
    x, y, right, bottom = BOX
    for number in range(8):
        picture(root / split / f"{number}.png", number)
    box = {"bbox": [x, y, right - x, bottom - y], "area": (right - x) * (bottom - y), "iscrowd": 0}
    content = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 64, "height": 64} for number in range(8)],
        "annotations": [{"id": n + 1, "image_id": n, "category_id": 1 + n % 2, **box} for n in range(8)],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "white"}],
    }
    (root / name).write_text(json.dumps(content))


def cells(folder):
    for split in ("train", "val"):
        coco(folder / "cells", split, f"{split}.json")


def blood(folder):
    """BCCD's layout, which is VOC's, and a folder in COCO's."""
    (folder / "data").mkdir()
    (folder / "data" / "blood").mkdir()
    coco(folder / "data" / "blood", "val", "val.json")
    root = folder / "data" / "bccd"
    x, y, right, bottom = BOX
    box = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    for place, split in enumerate(("train", "val", "test")):
        names = [f"{place}{number}" for number in range(8)]
        (root / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
        (root / "Annotations").mkdir(exist_ok=True)
        for number, name in enumerate(names):
            picture(root / "JPEGImages" / f"{name}.jpg", number)
            kind = ("red", "white")[number % 2]
            (root / "Annotations" / f"{name}.xml").write_text(
                f"<annotation><filename>{name}.jpg</filename><size><width>64</width><height>64</height></size>"
                f"<object><name>{kind}</name><difficult>0</difficult><bndbox>{box}</bndbox></object></annotation>"
            )


def roads(folder):
    mask = np.arange(12, dtype=np.uint8).repeat(6)[:64]
    for split in ("train", "val", "test"):
        for number in range(8):
            picture(folder / "data" / "camvid" / split / "images" / f"{number}.png", number)
            file = folder / "data" / "camvid" / split / "masks" / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(np.tile(mask, (64, 1))).save(file)


def example(name):
    """The example package in the reader's clone, and on the path as if it were installed."""

    def prepare(folder):
        source = ROOT / "docs" / "examples" / name
        shutil.copytree(source, folder / "docs" / "examples" / name)
        shutil.copytree(source / "src", folder, dirs_exist_ok=True)
        install((source / "pyproject.toml").read_text(), folder)

    return prepare


def scaffold(folder):
    """What `ftengine plugins new acme-vision` writes, as if it were installed."""
    with tempfile.TemporaryDirectory() as elsewhere:
        written = Path(elsewhere) / "acme-vision"
        package("acme-vision", ["backbone", "loss", "metric"]).write(written)
        shutil.copytree(written / "src", folder, dirs_exist_ok=True)
        install((written / "pyproject.toml").read_text(), folder)


def summed(folder):
    """The same, with a mistake in its loss."""
    scaffold(folder)
    file = folder / "acme_vision" / "training.py"
    mean, total = 'batch.targets["label"])}', 'batch.targets["label"], reduction="sum")}'
    assert file.read_text().count(mean) == 1
    file.write_text(file.read_text().replace(mean, total))


def install(project, site):
    """Put the metadata of a package into the folder `site`, as an installer does; `project` is its pyproject.toml."""
    about = tomllib.loads(project)["project"]
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    lines = [f"{plugin} = {module}" for plugin, module in about["entry-points"]["ftengine"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[ftengine]", *lines]) + "\n")


SHORT = " --set train.epochs=1"
SMALL = f"{SHORT} --set image.size=64 --set train.batch_size=4"
BRIEF = f"{SMALL} --set schedule.warmup_epochs=0"
SETTINGS = {
    "README.md": Setting(
        (insects, cells),
        ("ResNet18_Weights.IMAGENET1K_V1", "FasterRCNN_ResNet50_FPN_Weights.COCO_V1"),
        {
            "ftengine run --config insects.yaml": " --set image.size=64",
            "ftengine run --config cells.yaml": SMALL,
            "ftengine compare": " --strategies probe,full --seeds 1 --budget 90s --set image.size=64",
        },
        ("ants", "bees"),
    ),
    "docs/quickstart.md": Setting(
        (photos,),
        smaller={
            "uv run ftengine run --config configs/detection": SHORT,
            "uv run ftengine run --config configs/segmentation": SHORT,
            "uv run ftengine run --config configs/joint": SHORT,
            "uv run ftengine run --config configs/classification/digits.yaml --set": SHORT,
            "uv run ftengine compare": " --seeds 1 --budget 90s --set data.limit=200",
        },
    ),
    "docs/tutorial.md": Setting((), ("ResNet18_Weights.IMAGENET1K_V1",), alike=("leaves", "pagoda", "petals")),
    "docs/detection.md": Setting(
        (photos, blood),
        ("ResNet50_Weights.IMAGENET1K_V2",),
        {
            "uv run ftengine run --config configs/detection/digits": SHORT,
            "uv run ftengine run --config configs/detection/bccd": f"{BRIEF} --set head.preset=small",
        },
    ),
    "docs/segmentation.md": Setting(
        (roads,),
        ("ResNet50_Weights.IMAGENET1K_V2",),
        {
            "uv run ftengine run --config configs/segmentation/digits": SHORT,
            "uv run ftengine run --config configs/segmentation/camvid": f"{BRIEF} --set augment=[]",
        },
    ),
    "docs/strategies.md": Setting(
        smaller={
            "ftengine run": SHORT,
            "ftengine compare --config configs/transfer/digits.yaml --strategies": " --seeds 1 --budget 2min",
            "ftengine compare --config configs/transfer/digits.yaml --set": " --strategies lora,probe --seeds 1"
            " --set train.epochs=2",
            "ftengine lr-find": " --steps 20",
        }
    ),
    "docs/examples/ftengine-metric-learning/README.md": Setting(
        (example("ftengine-metric-learning"),), smaller={"ftengine run": SHORT}
    ),
    "docs/examples/ftengine-video/README.md": Setting((example("ftengine-video"),), smaller={"ftengine run": SHORT}),
    "docs/distributed.md": Setting(smaller={"torchrun": SHORT}),
    "docs/conformance.md": Setting((summed,)),
    "docs/faults.md": Setting(smaller={"ftengine run": SHORT}),
    "docs/one-config-through-the-code.md": Setting(smaller={"ftengine run": SHORT}),
}


def smaller(setting, command):
    """The command with the options that make it smaller behind its own."""
    flat = " ".join(command.replace("\\\n", " ").split())
    fitting = [extra for beginning, extra in setting.smaller.items() if flat.startswith(beginning)]
    return flat + "".join(fitting[:1])
