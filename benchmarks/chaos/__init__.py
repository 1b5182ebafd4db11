"""What a server promises, under everything at once. The denoiser sleeps: no time here is one of a real denoiser."""
