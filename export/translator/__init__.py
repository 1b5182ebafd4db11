"""OPUS-MT for prompts in other languages: from a Marian checkpoint to what the client's `language.marian` reads."""
