"""What a kit starts with: configuration, environment and defaults, put together once, every problem told at once."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tokenkit import catalog
from tokenkit.catalog import Model
from tokenkit.config import Config, ProviderConfig, data_home, load
from tokenkit.errors import ConfigError, did_you_mean
from tokenkit.layers import Limits
from tokenkit.limits import Bucket
from tokenkit.providers import registry, simulated
from tokenkit.providers.base import Provider
from tokenkit.vault import Vault

SIMULATED = "TOKENKIT_SIMULATED"
"""Set to anything but 0, this environment variable makes every kit use the simulated provider alone."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts of a kit. ``notice`` is a sentence to say aloud: that answers are simulated, or what could not load."""

    config: Config
    home: Path
    providers: tuple[Provider, ...]
    models: tuple[Model, ...]
    notice: str = ""

    def limits(self, bucket: Callable[[str, float], Bucket]) -> Callable[[str], Limits]:
        """From a model id to its limits; models of one provider share what the file gives that provider.

        ``bucket`` makes a token bucket of a name and a rate per minute.
        """
        shared = {}
        for table in self.config.providers:
            requests, tokens = table.requests_per_minute, table.tokens_per_minute
            shared[table.name] = Limits(
                None if requests is None else bucket(f"{table.name} requests", requests),
                None if tokens is None else bucket(f"{table.name} tokens", tokens),
                table.at_once,
            )
        return lambda model: shared.get(model.partition("/")[0]) or Limits()


def assemble(
    config: str | Path | None,
    environ: Mapping[str, str],
    providers: Iterable[Provider] | None,
    models: Iterable[Model] | None,
    home: str | Path | None,
) -> Assembly:
    """Read configuration and environment, and settle which providers and models there are and where memory lives.

    Providers and models that are handed in stand alone: then neither file nor environment adds any.
    Raises ConfigError for a bad file, a provider without a dialect, or a model without a provider.
    """
    if providers is not None:
        said = load(config, environ) if config is not None else Config(home=Path(home or ""))
        given = tuple(providers)
        known = tuple(models) if models is not None else tuple(m for p in given for m in catalog.defaults(p.name))
        return Assembly(said, _home(home, said), given, _served(known, given))
    if environ.get(SIMULATED, "0") not in ("", "0"):
        # A file that was named still sets budgets, defaults and habits; one lying around must not stand in the way.
        said = load(config, environ) if config is not None else Config(home=data_home(environ))
        return _simulated(said, home, "")
    said = load(config, environ)
    found = _providers(said, environ, vault_of(said, environ))
    if not found:
        return _simulated(said, home, _nothing_found(said))
    prices = said.overrides
    listed = [catalog.filled(model, overrides=prices) for model in said.models]
    mentioned = {model.provider for model in listed}
    for provider in found:
        if provider.name not in mentioned:
            listed.extend(catalog.defaults(provider.name, overrides=prices))
    return Assembly(said, _home(home, said), found, _served(tuple(models or listed), found), registry.notice())


def team_address(name: str, environ: Mapping[str, str]) -> str:
    """Return the address of the team's journal, from the environment variable of that name.

    Raises ConfigError where it is empty: to go on with a file of one's own would drop the team's budgets.
    """
    if not environ.get(name):
        raise ConfigError(
            f"[ledger] journal_env names {name}, and that environment variable is not set: give it the address of the "
            "team's PostgreSQL, such as postgresql://user@host/database, or take journal_env out of tokenkit.toml."
        )
    return environ[name]


def vault_of(config: Config, environ: Mapping[str, str]) -> Vault:
    """Return the key vault of this configuration; whether its file exists is another question."""
    return Vault(config.home / "vault", environ=environ)


def unlisted(provider: str, name: str, config: Config) -> Model:
    """Return a model that no catalog lists, priced and sized by configuration and price data where they know it."""
    return catalog.filled(Model(provider, name, capabilities=catalog.capabilities_of(name)), overrides=config.overrides)


def temporary_home() -> Path:
    """Return a fresh folder that is removed when the interpreter ends."""
    path = Path(tempfile.mkdtemp(prefix="tokenkit-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _home(home: str | Path | None, config: Config) -> Path:
    return Path(home) if home is not None else config.home


def _simulated(config: Config, home: str | Path | None, notice: str) -> Assembly:
    # Simulated calls keep a ledger of their own, so that play money never mixes with what was really spent.
    place = Path(home) if home is not None else config.home / "simulated"
    return Assembly(config, place, (simulated.provider(),), simulated.models() + simulated.vectors(), notice)


def _nothing_found(config: Config) -> str:
    where = f"{config.path} names no provider" if config.path else "no tokenkit.toml and no API key in the environment"
    return f"tokenkit: {where}, so the simulated provider answers. Set OPENAI_API_KEY, say, for a real one."


def _providers(config: Config, environ: Mapping[str, str], vault: Vault) -> tuple[Provider, ...]:
    """Return the providers of the environment and the vault, those of the file on top, by name."""
    found = {provider.name: provider for provider in registry.from_environment(environ)}
    stored = vault.names() if vault.exists else ()
    for name in stored:
        if name in registry.known() and name not in found:
            found[name] = registry.known()[name](key=vault.get(name))
    problems = []
    for table in config.providers:
        make = registry.known().get(table.dialect)
        if make is None:
            hint = did_you_mean(table.dialect, sorted(registry.known()))
            problems.append(f"{config.path}: provider {table.name}: there is no dialect {table.dialect!r}. {hint}")
            continue
        made = make(name=table.name)
        if table.name in stored:
            made = replace(made, key=vault.get(table.name))
        found[table.name] = _configured(table, made, found.get(table.name), environ)
    if problems:
        raise ConfigError(problems)
    return tuple(found.values())


def _configured(
    table: ProviderConfig, made: Provider, from_environment: Provider | None, environ: Mapping[str, str]
) -> Provider:
    base = from_environment or made
    found = (registry.key_from(environ, name) for name in table.key_env)
    keys = [key for key in found if key is not None] if table.key_env else [base.key]
    return replace(
        made,
        base_url=table.base_url or base.base_url,
        key=keys[0] if keys else None,
        spare_keys=tuple(key for key in keys[1:] if key is not None),
        headers=(*made.headers, *table.headers),
    )


def _served(models: tuple[Model, ...], providers: tuple[Provider, ...]) -> tuple[Model, ...]:
    names = {provider.name for provider in providers}
    orphans = [m.id for m in models if m.provider not in names]
    if orphans:
        raise ConfigError(
            f"Model {model}: there is no provider of that name here (there is {', '.join(sorted(names))}). Give it a "
            "[[provider]] table, or set its key in the environment."
            for model in orphans
        )
    return models
