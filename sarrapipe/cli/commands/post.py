"""`sarrapipe post`: announce files and trees of this machine."""

from __future__ import annotations

import sys

import click

from sarrapipe import log
from sarrapipe.config.flags import flow_options
from sarrapipe.config.load import ConfigHome, Overrides, load_flow

__all__ = ["command"]


@click.command()
@click.option("-c", "--config", "name", default="", help="Configuration to use: post/NAME or NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.argument("paths", nargs=-1, type=click.Path())
@flow_options
def command(name: str, paths: tuple[str, ...], overrides: Overrides = (), *, as_json: bool) -> int:
    """Announce files and trees; ends when the broker has confirmed every one.

    PATHS are files or directories. Without a configuration the options say where to announce them:

    sarrapipe post --post-broker amqp://alice@pump/ --post-base-url http://here/ --post-base-dir /data /data/x
    """
    import orjson

    from sarrapipe.flow.posting import PostResult, post_files

    if not name and paths and paths[0].startswith("post/"):
        name, paths = paths[0], paths[1:]
    name = name.removeprefix("post/").removesuffix(".conf")
    paths_given = [("path", path) for path in paths]
    config = load_flow(ConfigHome.default(), "post", name, [*overrides, *paths_given])
    # Errors and the result are printed here; a line for each file only where it is asked for.
    log.configure("warning" if config.origin("log_level").file == "default" else config.log_level)

    def progress(result: PostResult, waiting_for: str) -> None:
        if sys.stderr.isatty() or waiting_for:
            click.echo(f"\r{result.posted} posted {waiting_for}".rstrip(), nl=bool(waiting_for), err=True)

    result = post_files(config, progress)
    if as_json:
        figures = {"posted": result.posted, "errors": result.errors, "seconds": round(result.seconds, 3)}
        click.echo(orjson.dumps(figures).decode())
    else:
        rate = result.posted / result.seconds if result.seconds else 0.0
        click.echo(
            f"{result.posted} posted in {result.seconds:.1f} s ({rate:.0f}/s), {len(result.errors)} not"
        )
        for error in result.errors:
            click.echo(f"sarrapipe: not announced: {error}", err=True)
    return 1 if result.errors else 0
