"""What export, server and client agree on: tensors, variants, signatures, placements, parameters, the job, errors. Declarations; they
import no behaviour, and numpy alone."""
