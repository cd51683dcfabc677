"""Every export format against every kind of network: what its library makes of the same views.

Prints the largest difference of a feature, relative to the largest feature, between a backbone and
the library that loaded its export in a process of its own; a dash where it has no such network.
"""

from __future__ import annotations

import torch
from common import options, save, workplace

from scanlearn.backbones.backbone import BackboneConfig, build_backbone
from scanlearn.backbones.card import Card
from scanlearn.backbones.formats import FORMATS, export_format
from scanlearn.errors import ScanlearnError

NETWORKS = ("resnet18", "resnet10t", "densenet121", "convnext_atto", "vit_tiny_patch16_224")
SIZE = 64


def main() -> None:
    parser = options(__doc__, quick="resnet18 only", only="one of " + ", ".join(NETWORKS))
    asked = parser.parse_args()
    networks = ("resnet18",) if asked.quick else NETWORKS
    networks = tuple(name for name in networks if asked.only in name)
    print(f"| network | {' | '.join(FORMATS)} |\n|---|{'---|' * len(FORMATS)}")
    figures = {}
    with workplace() as folder:
        for name in networks:
            backbone = build_backbone(BackboneConfig(name=name), 1, 0, size=SIZE)
            # BatchNorm statistics that are not those of a fresh network.
            noise = torch.randn(8, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
            backbone(noise * 2 + 1)
            card = Card.of(backbone, size=SIZE, mean=(0.4,), std=(0.2,))
            cells = []
            for row in FORMATS:
                try:
                    exported = export_format(backbone, card, folder / name / row, row)
                except ScanlearnError as error:
                    if "has no network" not in str(error):
                        raise
                    cells.append("-")
                else:
                    figures[f"difference_{name}_{row}"] = exported.difference
                    cells.append(f"{exported.difference:.1g}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)
    save(figures, asked.json)


if __name__ == "__main__":
    main()
