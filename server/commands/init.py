"""Make a coordinator's folder: a certificate authority, the server's certificate, settings and a secret.

Hospitals get one file of it, ca.crt. Everything else stays here; a backup of the folder is a backup of the federation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = "python -m server init federation --name fedgraft.example.org --public-port 443"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder to make")
    parser.add_argument("--name", default="localhost", help="DNS name or address that hospitals will use (localhost)")
    parser.add_argument("--public-port", type=int, default=8443, help="the port that hospitals reach (8443)")
    parser.add_argument("--link-port", type=int, default=9092, help="Flower's SuperLink, on loopback (9092)")
    parser.add_argument("--health-port", type=int, default=9093, help="gRPC health service, on loopback (9093)")
    parser.add_argument("--days", type=int, default=825, help="days that the server's certificate is valid (825)")
    parser.add_argument("--no-proxy", action="store_true", help="your own proxy serves what nginx.conf would")


def run(arguments: argparse.Namespace) -> int:
    """Make it and say what comes next."""
    from server.deploy.folder import ServerConfig, init
    from server.deploy.processes import write_nginx

    config = ServerConfig(
        name=arguments.name,
        public_port=arguments.public_port,
        link_port=arguments.link_port,
        health_port=arguments.health_port,
        proxy=not arguments.no_proxy,
    )
    deployment = init(arguments.folder, config, days=arguments.days)
    write_nginx(deployment)
    print(f"made {deployment.path}; send {deployment.authority} to every hospital, on a channel that you trust")
    print(f"keep {deployment.authority_key} offline: it is needed for `python -m server renew` only")
    print(f"next: python -m server enrol {arguments.folder} CODE code.pub, for each hospital")
    return 0
