"""The report of gpu-check, line by line."""


class Report:
    """What was found: lines go out at once, as a later one may never come."""

    def __init__(self):
        self.bad = self.impossible = 0
        self.notes = []

    def say(self, *lines):
        for line in lines:
            print(line, flush=True)

    def row(self, *cells):
        self.say(table_row(*cells))

    def table(self, *titles):
        self.say(*table_head(*titles))

    def end(self):
        words = [f"**{self.bad} wrong**" if self.bad else "all well"]
        if self.impossible:
            words.append(f"{self.impossible} rows not possible here")
        self.say("", "; ".join([words[0], ", ".join(words[1:] + self.notes)]).removesuffix("; "))


def table_row(*cells):
    """A row of a table in Markdown."""
    return "| " + " | ".join(str(cell).replace("|", "/").replace("\n", " / ") for cell in cells) + " |"


def table_head(*titles):
    """The two lines that begin a table in Markdown."""
    return [table_row(*titles), "|---" * len(titles) + "|"]
