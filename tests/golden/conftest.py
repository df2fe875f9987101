"""Says how many golden values were compared and how far off the worst one was."""

from golden.golden import checked


def pytest_terminal_summary(terminalreporter):
    if checked:
        terminalreporter.write_line(
            f"golden values compared: {len(checked)}, largest relative error {max(checked):.1e}"
        )
