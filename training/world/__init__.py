"""The rendered world that nano learns from: people, places, clothes, captions, and how they are drawn."""
