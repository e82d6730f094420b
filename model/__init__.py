"""What learns: the Transformer, the token loader, the training loop, checkpoints, fine-tuning and release.

`torchrun -m model.train job.json` runs from this folder and `storage/` alone on any machine that has torch.
"""
