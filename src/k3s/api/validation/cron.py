"""The form of cron schedules and time zone names."""

from __future__ import annotations

import re

from k3s.api.cron import CronError, parse


def problems(text: str) -> list[str]:
    """What is wrong with a schedule; an empty list when nothing is."""
    try:
        parse(text)
    except CronError as error:
        return [str(error)]
    return []


def zone_problems(zone: str) -> list[str]:
    """What is wrong with the name of a time zone; whether the zone exists is found out when a job is due."""
    if not zone:
        return ["timeZone must be nil or non-empty string"]
    for part in zone.split("/"):
        if part in (".", "..") or part.startswith("-") or not re.fullmatch(r"[A-Za-z.\-_0-9+]{1,14}", part):
            return [f"unknown time zone {zone}"]
    if zone.lower() == "local":
        problems = ["timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"]
        return problems if zone == "Local" else [*problems, f"unknown time zone {zone}"]
    return []
