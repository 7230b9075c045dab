"""The hospital's commands: one file each, named in `COMMANDS`; imported one at a time, so that --help is instant."""

from __future__ import annotations

COMMANDS = {  # command -> what it is for, in the order in which a hospital meets them
    "init": "write center.yaml and make this node's key pair",
    "prepare": "turn DICOM CT, PET and RTSTRUCT into the HECKTOR layout, without identifiers",
    "doctor": "find everything that can go wrong before a round, with its remedy",
    "policy": "say in sentences what a coordinator can and cannot ask of this hospital",
    "describe": "show what the server may learn of this center: counts only",
    "statistics": "write what may be told of this center's patients before any training",
    "split": "show who trains and who tests here, or give that up",
    "start": "start this hospital's node; it only ever connects outwards",
    "health": "ask the running node whether it is alive",
    "audit": "verify and print what left this site",
    "budget": "show what is spent of the patients' privacy, and what a curriculum would cost",
    "afresh": "accept that a part of the vault is lost",
    "predict": "use a learned adapter on this hospital's own images, without any server",
    "tidy": "remove what is older than this hospital's retention",
    "challenge": "answer one patient as a container of HECKTOR 2026 must",
    "sbom": "libraries, weights and adapters with their licences, as CycloneDX",
    "erase": "remove a patient from caches, buffers and future splits",
}
