"""Every placement of every family, served: emulated where its card is not here."""
