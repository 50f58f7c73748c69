"""What is wrong with a document."""


class CSVError(ValueError):
    """`line` is the line, from 1, on which the field in question begins."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
