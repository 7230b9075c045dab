"""What both sides must agree on: configuration, model, adapters, tasks, wire format. No patient data."""

from common.runtime.lean import import_less

import_less()
