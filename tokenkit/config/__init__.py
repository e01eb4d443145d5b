"""``tokenkit.toml``: which providers, models, prices, budgets and habits hold here; every fault told at once.

profile = "seed-2024"            # old prices by name; leave it out for today's

[defaults]                       # what a call takes where it says nothing: model, max_tokens, deadline …
model = "auto"
compress = ["normalize", "dedupe", "summarize"]   # in this order; compress="" in a call leaves it out
target = 0.5                     # share of tokens to keep, where a call that compresses says nothing else

[[provider]]
name = "openai"                  # dialect, base_url, headers and price where they differ
key_env = "OPENAI_API_KEY"       # the variable's name; the key itself has no place in a file

[[model]]
provider = "openai"
name = "gpt-4o"
weight = 7.5
price = { input = 2.50, output = 10 }   # USD per million tokens; request = USD for each request

[routing]
strategy = "score"
[routing.weights]
"openai/gpt-4o" = 8

[[budget]]
limit = "5 USD"
window = "day"

[ledger]
store_prompts = false            # keep digests only

[notebook]
thumbs = false                   # no buttons to rate an answer beneath its receipt
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from tokenkit.catalog import CAPABILITIES, Model, capabilities_of, is_weight
from tokenkit.compress.pipeline import STAGES
from tokenkit.config.reading import Report, Table, parse, refuse_secrets
from tokenkit.config.writing import write_weights
from tokenkit.errors import ConfigError, did_you_mean
from tokenkit.money import parse_usd
from tokenkit.pricing import PROFILES, Overrides, PriceRule, flat, profile
from tokenkit.route import STRATEGIES, Policy

__all__ = ["Config", "ProviderConfig", "data_home", "find", "load", "write_weights"]


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """What the file says of one provider.

    ``dialect`` is how one talks to it, by default its own name; ``key_env`` the environment variables that hold
    its keys, which take turns; ``headers`` go with every request; ``price`` holds for all its models that have none of
    their own. The last three are limits its models share: requests and tokens a minute, calls at once.
    """

    name: str
    dialect: str
    base_url: str | None = None
    key_env: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    price: PriceRule | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    at_once: int | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """What holds here. ``path`` is the file it was read from, ``None`` without one.

    ``models`` are as the file describes them: no price where it gives none (see ``catalog.filled`` and ``overrides``).
    ``budgets`` are the tables as written, checked; ``webhook_env`` and ``journal_env`` are environment variables, since
    what they hold is often a secret: the URL to be told when a budget is nearly spent, the address of a team's
    PostgreSQL. ``thumbs``: a notebook offers to rate each answer. ``ledger`` is where the DuckDB file goes if not into
    ``home``, the data folder; ``defaults`` are options of a call, only those that were said.
    """

    path: Path | None = None
    providers: tuple[ProviderConfig, ...] = ()
    models: tuple[Model, ...] = ()
    profile: str | None = None
    routing: Policy = field(default_factory=Policy)
    budgets: tuple[Mapping[str, Any], ...] = ()
    webhook_env: str | None = None
    journal_env: str | None = None
    ledger: Path | None = None
    durability: Literal["process", "power"] = "process"
    store_prompts: bool = True
    thumbs: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    home: Path = field(default_factory=Path)

    @property
    def overrides(self) -> tuple[Overrides, ...]:
        """The prices that outdo the price data, strongest first: the models', the providers', the profile's."""
        return (
            {model.id: model.price for model in self.models if model.price is not None},
            {f"{provider.name}/*": provider.price for provider in self.providers if provider.price is not None},
            *(() if self.profile is None else (profile(self.profile),)),
        )


def load(path: str | Path | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration: ``path``, else what ``find`` finds, else the defaults.

    Raises ConfigError with every fault of the file at once, each naming file, key, value and what to do; the value
    never where it may be a secret.
    """
    file = find(path, environ)
    if file is None:
        return Config(home=data_home(environ))
    _, data = parse(file)
    return read(data, Report(file), environ)


def read(data: Mapping[str, Any], report: Report, environ: Mapping[str, str]) -> Config:
    """Turn what a file says into a configuration. Raises ConfigError with every fault."""
    refuse_secrets(data, report)
    top = Table(data, "", report)
    ledger, notebook = top.table("ledger"), top.table("notebook")
    where = ledger.text("path")
    config = Config(
        path=report.file,
        providers=_providers(top),
        models=_models(top),
        profile=top.text("profile", choices=PROFILES),
        routing=_routing(top.table("routing")),
        budgets=tuple(_budget(table) for table in top.tables("budget")),
        webhook_env=_alerts(top.table("alerts")),
        ledger=None if where is None else report.file.parent / _tilde(where, environ),
        journal_env=ledger.text("journal_env"),
        durability=cast(
            'Literal["process", "power"]', ledger.text("durability", choices=("process", "power")) or "process"
        ),
        store_prompts=ledger.flag("store_prompts", default=True),
        thumbs=notebook.flag("thumbs", default=True),
        defaults=_defaults(top.table("defaults")),
        home=data_home(environ),
    )
    ledger.finish()
    notebook.finish()
    top.finish()
    report.settle()
    return config


def find(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the configuration file: ``path``, $TOKENKIT_CONFIG, ./tokenkit.toml, or the user's own; ``None`` if none.

    The user's own is ``tokenkit/tokenkit.toml`` in $XDG_CONFIG_HOME, else in ~/.config. Raises ConfigError where a file
    that was named is not there.
    """
    for said, named in (("", path), ("$TOKENKIT_CONFIG names ", environ.get("TOKENKIT_CONFIG"))):
        if named:
            file = _tilde(named, environ)
            if os.path.isdir(file):
                raise ConfigError(f"{said}{file}: this is a folder; name the file in it.")
            if not os.path.exists(file):
                raise ConfigError(f"{said}{file}: there is no such file.")
            return file.absolute()
    own = _xdg("XDG_CONFIG_HOME", ".config", environ) / "tokenkit" / "tokenkit.toml"
    # Absolute, because a notebook may change its folder before weights are saved.
    return next((file.absolute() for file in (Path("tokenkit.toml"), own) if os.path.isfile(file)), None)


def data_home(environ: Mapping[str, str]) -> Path:
    """Return the folder of journal, ledger and vault: $TOKENKIT_HOME, else $XDG_DATA_HOME/tokenkit or its default."""
    if said := environ.get("TOKENKIT_HOME"):
        return _tilde(said, environ)
    return _xdg("XDG_DATA_HOME", ".local/share", environ) / "tokenkit"


def _xdg(variable: str, default: str, environ: Mapping[str, str]) -> Path:
    # The XDG base directory rules: a relative path in these variables is to be ignored.
    said = Path(environ.get(variable, ""))
    return said if said.is_absolute() else _tilde(f"~/{default}", environ)


def _tilde(path: str | Path, environ: Mapping[str, str]) -> Path:
    path = Path(path)
    if path.parts[:1] != ("~",):
        return path
    home = environ.get("HOME") or environ.get("USERPROFILE")
    return (Path(home) if home else Path.home()).joinpath(*path.parts[1:])


def _providers(top: Table) -> tuple[ProviderConfig, ...]:
    found: dict[str, ProviderConfig] = {}
    for table in top.tables("provider"):
        name = table.text("name", like=r"[^\s/]+", advice="give one word without spaces and slashes")
        table.missing("name", 'say which provider, as in name = "openai"')
        dialect = table.text("dialect")
        base_url = table.text(
            "base_url",
            like=r"(?:https?|simulated)://[^\s?#]+",
            advice='give an address such as "https://api.openai.com/v1", without ? and #',
        )
        key_env = table.texts(
            "key_env",
            like=r"(?![A-Za-z0-9]{28,}$)[A-Za-z_][A-Za-z0-9_]*",
            advice='give the name of an environment variable, such as "OPENAI_API_KEY", or a list of them, not the key',
        )
        headers, price = _headers(table.table("headers")), _price(table, "provider", f"{name}/*")
        limits = table.count("requests_per_minute"), table.count("tokens_per_minute"), table.count("at_once")
        table.finish()
        if name in found:
            table.refuse("name", "this provider has been given already: make one table of the two")
        elif name is not None:
            found[name] = ProviderConfig(name, dialect or name, base_url, key_env, headers, price, *limits)
    return tuple(found.values())


def _headers(table: Table) -> tuple[tuple[str, str], ...]:
    headers = []
    for name in table.data:
        value = table.text(name, like=r"[^\x00-\x1f\x7f]+", advice="give a text in quotes, on one line")
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            table.refuse(name, "a header's name is made of letters, digits and dashes")
        elif value is not None:
            headers.append((name, value))
    return tuple(headers)


def _models(top: Table) -> tuple[Model, ...]:
    found: dict[str, Model] = {}
    for table in top.tables("model"):
        provider = table.text("provider", like=r"[^\s/]+", advice="give one word without spaces and slashes")
        name = table.text("name", like=r"\S+", advice="give the model's name without spaces")
        table.missing("provider", 'say whose model it is, as in provider = "openai"')
        table.missing("name", 'say which model, as in name = "gpt-4o"')
        weight = table.number("weight")
        able = table.words("capabilities", CAPABILITIES)
        price = _price(table, "user", f"{provider}/{name}")
        window, longest = table.count("context_window"), table.count("max_output_tokens")
        encoding = table.text("encoding")
        table.finish()
        if provider is None or name is None:
            continue
        if able is None:
            able = capabilities_of(name)
        model = Model(provider, name, 1.0 if weight is None else weight, price, window, longest, able, encoding)
        if model.id in found:
            table.refuse("name", f"{model.id} has been given already: leave one of the two away")
        found.setdefault(model.id, model)
    return tuple(found.values())


_EXTRA_RATES = ("cache_read", "cache_creation", "reasoning")


def _price(owner: Table, layer: str, matched: str) -> PriceRule | None:
    if "price" not in owner.data:
        owner.take("price")
        return None
    table, before = owner.table("price"), len(owner.report.problems)
    rates: dict[str, Any] = {key: table.price(key) for key in ("input", "output", *_EXTRA_RATES)}
    fee = table.price("request")
    for key in ("input", "output"):
        table.missing(key, "give USD per million tokens; 0 is a price, leaving it out is not")
    if fee is not None:
        try:
            parse_usd(fee)
        except ConfigError:
            table.refuse("request", "give USD for each request, with at most nine decimals")
    table.finish()
    if len(owner.report.problems) > before or rates["input"] is None:
        return None
    return flat(layer, matched, **rates, request=fee or 0)


def _routing(table: Table) -> Policy:
    policy = Policy()
    strategy = table.text("strategy", choices=STRATEGIES) or policy.strategy
    temperature = table.number("temperature") or 0.0
    weights = table.table("weights")
    for name, weight in weights.data.items():
        if not is_weight(weight):
            weights.refuse(name, "give a finite number of at least 0")
    table.finish()
    good = {name: float(weight) for name, weight in weights.data.items() if is_weight(weight)}
    return Policy(strategy, temperature, MappingProxyType(good))


def _budget(table: Table) -> Mapping[str, Any]:
    limit = table.take("limit")
    table.missing("limit", 'say how much, as in limit = "5 USD" or limit = "100000 tokens"')
    if limit is not None and not _is_limit(limit):
        table.refuse("limit", 'give an amount of at least 0, as in "5 USD" or "100000 tokens"')
    table.text("window", choices=("request", "hour", "day", "month", "total", "cell"))
    table.text("action", choices=("block", "warn", "throttle", "reroute", "shrink"))
    for scope in ("user", "provider", "model", "session", "endpoint"):
        table.text(scope)
    table.text("name")
    table.text("timezone", like=r"[A-Za-z0-9_+/-]+", advice='give a place such as "Europe/Berlin", or "UTC"')
    table.number("warn_at", high=1)
    table.finish()
    return MappingProxyType(dict(table.data))


def _alerts(table: Table) -> str | None:
    name = table.text("webhook_env")
    table.finish()
    return name


def _is_limit(limit: object) -> bool:
    if isinstance(limit, str) and limit.strip().endswith("tokens"):
        return limit.strip().removesuffix("tokens").strip().isdecimal()
    try:
        parse_usd(limit)  # type: ignore[arg-type]
    except (ConfigError, ValueError):
        return False
    return True


def _defaults(table: Table) -> Mapping[str, Any]:
    deadline = table.number("deadline")
    if deadline == 0:
        table.refuse("deadline", "give seconds above 0")
    target = table.number("target", high=1)
    if target == 0:
        table.refuse("target", "give the share of tokens to keep, above 0 and at most 1")
    said = {
        "model": table.text("model"),
        "max_tokens": table.count("max_tokens"),
        "deadline": deadline,
        "temperature": table.number("temperature"),
        "system": table.text("system"),
        "user": table.text("user"),
        "endpoint_name": table.text("endpoint_name"),
        "compress": _stages(table),
        "target": target,
        "cache": _cache(table),
    }
    table.finish()
    return MappingProxyType({key: value for key, value in said.items() if value is not None})


def _stages(table: Table) -> tuple[str, ...] | None:
    """Return the stages of compression in their order: a list of names, or one text with commas."""
    advice = 'give a list of stages, such as ["normalize", "summarize"]'
    given = table.texts("compress", like=r"[\w, -]*", advice=advice)
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    # A stage of one's own is a function, which no file can hold: calls name it.
    known = sorted({*STAGES, "llm"})
    for name in names:
        if name not in known:
            table.report.refuse(table.place("compress"), "compress", name, did_you_mean(name, known))
    return tuple(names) or None


def _cache(table: Table) -> bool | str | None:
    if isinstance(table.data.get("cache"), bool):
        return table.flag("cache", default=False)
    return table.text("cache", like=r"\s*\d{1,6}\s*[mhdw]\s*", advice='give true, false, or an age such as "7d"')
