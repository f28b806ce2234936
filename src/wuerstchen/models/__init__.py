"""Networks: tensors in, tensors out. No device, no disk, no output."""
