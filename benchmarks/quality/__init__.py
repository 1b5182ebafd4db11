"""Whether pictures show the person and the prompt, judged by networks that never saw either."""
