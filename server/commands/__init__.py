"""The coordinator's commands: one file each, named in `COMMANDS`; imported one at a time, so that --help is instant."""

from __future__ import annotations

COMMANDS = {  # command -> what it is for, in the order in which a coordinator meets them
    "plan": "print the resolved run and every broken rule",
    "inspect": "what a backbone and every adapter on it weigh, without its weights",
    "statistics": "lay centers' statistics side by side: who differs from whom",
    "init": "make a coordinator's folder: certificates, settings, secrets",
    "enrol": "let a hospital's public key in, replace it, or refuse it from now on",
    "start": "run the coordinator's processes: SuperLink, executor and nginx",
    "run": "run or resume a curriculum over the enrolled hospitals",
    "status": "hospitals, the round under way, the last entries of the ledger",
    "health": "ask the running coordinator whether it is alive",
    "renew": "a new server certificate from the same authority",
    "release": "let suspended centers take part again, on the ledger",
    "withdraw": "take a center out of what was fitted from its sums",
    "verify": "recompute every step's probe in this process",
    "report": "write a run's report again",
    "promote": "point a lineage at another adapter of the bank",
    "rollback": "point a lineage at the adapter that it had before",
    "export": "the bank as a signed folder that explains itself, or a lineage as a MONAI bundle",
    "sbom": "libraries, weights and adapters with their licences, as CycloneDX",
}
