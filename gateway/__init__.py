"""The front door: HTTP with OpenAI's image endpoints, jobs and a page, in front of one or several FaceCLIP servers."""

__version__ = "0.1.0"
