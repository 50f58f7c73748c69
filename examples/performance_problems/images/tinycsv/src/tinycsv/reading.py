"""From text to rows."""

from tinycsv.errors import CSVError


class _Parser:
    """Goes through a document character by character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.line = 1
        self.rows: list[list[str]] = []
        self.row: list[str] = []
        self.field = ""

    def peek(self, ahead: int = 0) -> str:
        """The character so many places ahead, empty past the end."""
        rest = self.text[self.position + ahead : self.position + ahead + 1]
        return rest

    def take(self) -> str:
        """The next character."""
        character = self.peek()
        self.position += 1
        if character == "\n":
            self.line += 1
        return character

    def at_line_end(self) -> bool:
        """Whether LF or CRLF comes next."""
        return self.peek() == "\n" or (self.peek() == "\r" and self.peek(1) == "\n")

    def plain_field(self) -> None:
        """A field that does not begin with a quote."""
        while self.peek() != "" and self.peek() != "," and not self.at_line_end():
            self.field = self.field + self.take()

    def quoted_field(self) -> None:
        """A field in quotes."""
        begin = self.line
        self.take()
        while True:
            character = self.take()
            if character == "":
                raise CSVError("a quoted field never ends", begin)
            if character != '"':
                self.field = self.field + character
            elif self.peek() == '"':
                self.field = self.field + self.take()
            else:
                break
        if not (self.peek() == "" or self.peek() == "," or self.at_line_end()):
            raise CSVError(f"{self.peek()!r} after a closing quote", begin)

    def parse(self) -> list[list[str]]:
        """All rows."""
        while self.peek() != "":
            self.row = []
            while True:
                self.field = ""
                if self.peek() == '"':
                    self.quoted_field()
                else:
                    self.plain_field()
                self.row = [*self.row, self.field]
                if self.peek() != ",":
                    break
                self.take()
            if self.peek() == "\r":
                self.take()
            self.take()
            self.rows.append(self.row)
        return self.rows


def parse(text: str) -> list[list[str]]:
    """All rows of a document. Raises `CSVError`."""
    return _Parser(text).parse()


def table(text: str) -> list[dict[str, str]]:
    """Rows by the names in the first one. Raises `CSVError` for a row with more or fewer fields."""
    rows = parse(text)
    if not rows:
        return []
    header = rows[0]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise CSVError(f"row {number} has {len(row)} fields, the header {len(header)}", number)
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]
