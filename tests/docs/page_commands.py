"""The commands that a page shows, in order, with the files that it tells the reader to write and what commands print.

How a page says what is what:

- A ``console`` block has commands, each after ``$ ``, and below each what it prints, in which ``…`` leaves lines out.
- An indented block has commands only.
- A block after a line that ends in ```NAME`:`` is the file NAME; after ```NAME`, added:`` it goes to the file's end.
- ``<!-- printed by: BEGINNING -->`` before a ``text`` block: it is what the command that begins like this prints.
- ``<!-- not run: REASON -->`` before a block of commands: they cannot be run by the tests.
  ``<!-- not run (PART): REASON -->``: those of them with PART in them cannot.

Any other block that looks like commands is a mistake, as is a mark without a reason, or one with nothing to mark.
"""

import re
from dataclasses import dataclass, field

PROGRAMS = r"\$ |(?:uv|ftengine|python|python3|pip|torchrun|srun|sbatch|git|mkdocs|cd|export|ruff|mypy|pytest)\s"
"""How a line begins that is a command."""

DATA = ("python", "yaml", "toml", "json", "xml", "text", "")
"""Languages of blocks that are no commands; one without a language is text."""

SHELL = ("bash", "sh", "shell")
"""Languages of scripts, which the tests do not run."""

TOKEN = re.compile(
    r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```$"
    r"|^<!-- not run(?: \((?P<part>[^)\n]+)\))?:(?P<reason>.*?)-->$"
    r"|^<!-- printed by: (?P<printer>[^\n]+?) -->$"
    r"|(?<=\n\n)(?P<indented>(?: {4}[^\n]*\n)+)"
    r"|^(?P<text>[^\n]+)$",
    re.DOTALL | re.MULTILINE,
)
FILE = re.compile(r"`(?P<name>[\w./-]+\.\w+)`(?P<added>, added)?:$")


@dataclass
class File:
    """A file that the reader is told to write."""

    name: str
    content: str
    added: bool = False

    def write(self, folder):
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.read_text() + self.content if self.added else self.content)


@dataclass
class Command:
    """A command, the lines that the page shows of what it prints, and why the tests cannot run it, if they cannot."""

    text: str
    shown: list[str] = field(default_factory=list)
    not_run: str | None = None


@dataclass
class Shown:
    """A page: files and commands in order, the mistakes in how it says what they are, and how many marks it has."""

    steps: list
    problems: list[str]
    marks: int = 0

    @property
    def commands(self):
        return [step for step in self.steps if isinstance(step, Command)]


def read(text):
    """What a page shows."""
    page, marks, printer, name = Shown([], []), [], None, None
    page.problems += [f"a fence that is indented: {line}" for line in re.findall(r"^ +```.*", text, re.MULTILINE)]
    for match in TOKEN.finditer(f"{text}\n"):
        if match["reason"] is not None:
            marks.append((match["part"], match["reason"].strip()))
            continue
        if match["printer"]:
            printer = match["printer"]
            continue
        if match["text"]:
            name = FILE.search(match["text"])
            if match["text"].startswith("<!-- not run"):
                page.problems.append(f"a mark that is not written as one: {match['text']}")
            continue
        content = match["fenced"] if match["indented"] is None else match["indented"]
        _block(page, match["language"], content, marks, printer, name)
        marks, printer, name = [], None, None
    if marks:
        page.problems.append(f"a mark without a block: {marks}")
    return page


def _block(page, language, content, marks, printer, name):
    first = content.partition("\n")[0]
    if language in SHELL:
        commands = [Command(content)]
        if not marks:
            page.problems.append(f"a script is neither run nor marked: {first}")
    elif language is None or language == "console":
        commands = _commands(page, content, prompt="$ " if language else "    ")
    else:
        commands = []
        if language not in DATA:
            page.problems.append(f"a block in a language that no test looks at, {language!r}: {first}")
        elif language in ("text", "") and re.search(f"^(?:{PROGRAMS})", content, re.MULTILINE):
            page.problems.append(f"commands in a block of text: {first}")
        if printer:
            _printed(page, printer, content)
        elif name:
            page.steps.append(File(name["name"], content, bool(name["added"])))
    _mark(page, commands, marks, first)
    page.steps += commands


def _commands(page, content, prompt):
    commands, continued = [], False
    for line in content.splitlines():
        if continued:
            commands[-1].text += f"\n{line.strip()}"
        elif line.startswith(prompt):
            commands.append(Command(line.removeprefix(prompt)))
        elif commands:
            commands[-1].shown.append(line)
        else:
            page.problems.append(f"a block of commands does not begin with one: {line}")
            return []
        continued = bool(commands) and commands[-1].text.endswith("\\")
        if not continued and not re.match(PROGRAMS + "|head |ls |cat ", f"{commands[-1].text} "):
            page.problems.append(f"a block of commands has something else: {commands[-1].text}")
    return commands


def _mark(page, commands, marks, first):
    for part, reason in marks:
        page.marks += 1
        if len(reason.split()) < 3:
            page.problems.append(f"a mark without a reason: {first}")
        marked = [command for command in commands if part is None or part in command.text]
        if not marked:
            page.problems.append(f"a mark that marks nothing: {first}")
        for command in marked:
            command.not_run = reason


def _printed(page, printer, content):
    command = next((command for command in reversed(page.commands) if command.text.startswith(printer)), None)
    if command is None:
        page.problems.append(f"no command begins like this: {printer}")
    else:
        command.shown += content.splitlines()


# --- what commands print ---------------------------------------------------------------------------------------


def shape(line, alike=()):
    """A line without what differs from run to run: numbers, widths, names in `alike`, and which epoch was best."""
    line = re.sub(r"[━─]+", "─", line)
    line = re.sub(r"\d{1,3}(?:,\d{3})+(?![\d.])|\d[\d.:]*(?:e[+-]?\d+)?(?:-\d+)*", "0", line)
    for name in alike:
        line = re.sub(rf"\b{name}\b", alike[0], line)
    return re.sub(r"\s+", " ", line).strip().removesuffix(" best")


def missing(shown, printed, alike=()):
    """The first line of `shown` that `printed` does not have, in that order and by its shape; None if it has all."""
    rest = iter([shape(line, alike) for line in printed.splitlines()])
    for line in shown:
        if line.strip() not in ("", "…") and shape(line, alike) not in rest:
            return line
    return None
