"""The front door: HTTP with OpenAI's image endpoints, jobs and a page, in front of one or several FaceCLIP servers."""
