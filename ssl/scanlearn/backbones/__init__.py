"""Backbones: timm networks, built from a seed, started from weights, exported and loaded strictly.

- `settings.py`: which backbone to build, and what it starts from
- `backbone.py`: a timm network without its classifier: built, hashed, and what it consists of
- `device.py`: the number format and memory layout that are fast on a device
- `consumer.py`: what other libraries make of an export, in a process of their own
- `card.py`: what a backbone is and where it comes from
- `weights.py`: the backbone folder: export, the proof that timm loads it, strict loading
- `model_card.py`: the card as Markdown, for the Hugging Face hub
- `formats.py`: exports for torchvision, MONAI, segmentation_models_pytorch and ONNX
- `start.py`: the weights a run starts from
- `naming.py`: from the names in a weight file to those of a timm network
- `spellings.py`: how other libraries name the layers of a network, and timm's own conversions
- `fitting.py`: weights loaded strictly into a network of other channels or another view size
- `head.py`: a network with a classifier head, for fine-tuning; class tokens as features
"""
