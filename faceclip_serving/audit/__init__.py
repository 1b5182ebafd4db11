"""Consent and audit: whose photographs a request may use, and a log of what was asked and made that nobody changes unnoticed."""
