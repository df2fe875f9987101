"""Summary line with the number of compared golden values and the largest relative error."""

from golden.golden import checked


def pytest_terminal_summary(terminalreporter):
    if checked:
        terminalreporter.write_line(
            f"golden values compared: {len(checked)}, largest relative error {max(checked):.1e}"
        )
