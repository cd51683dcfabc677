"""Pretraining: from settings to a finished run folder with an exported backbone.

- `settings.py`: all settings of a run, most of them shared with the arms of a comparison
- `folder.py`: the files of a run folder, and the rows of ``metrics.csv``
- `batches.py`: which scans each step sees, read ahead
- `optim.py`: optimiser, learning rate and weight decay
- `monitor.py`: collapse, and the hashes that prove two runs matched
- `module.py`: the LightningModule: views, loss, guard against NaN, run state
- `checkpoint.py`: checkpoints written whole or not at all
- `stopping.py`: SIGTERM and SIGUSR1 stop a run after its step
- `distributed.py`: the processes that share a batch
- `resolved.py`: what a configuration leaves open, for its scans and machine
- `run.py`: a run before its first step, and whether its folder may be used
- `conditions.py`: what a run was trained with, recorded by itself
- `verify.py`: files of archives, runs and studies against the hashes kept of them
- `wandb_log.py`: the only door to wandb
- `watch.py`: the label-free panel and the labeled probe while a network trains
- `recorder.py`: rows, checkpoints and the progress bar after each step
- `trainer.py`: Lightning's Trainer, from the checkpoint to the last step
- `trial.py`: trial steps: the dry run, and the largest batch that fits
- `init.py`: `scanlearn init`: a plan in YAML, written from what is seen of scans
- `export.py`: `export`: a backbone for another library
- `pretrain.py`: `pretrain`
"""
