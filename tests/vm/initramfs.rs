//! What an initramfs may be: the agent's judge against real kernels, the same bytes.
