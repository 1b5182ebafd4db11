"""From noise to latents: guidance, pictures, the step loop of all requests, admission, tiles, previews."""
