"""The sections of a report that belong to one family of networks, by the type of the run's experiment."""

from __future__ import annotations

from qspinn.exploration.competing.space import Experiment
from qspinn.exploration.layered.space import LayeredExperiment
from qspinn.exploration.local.space import LocalExperiment
from qspinn.report.sections import competing, layered, local
from qspinn.report.source import Section

SECTIONS: dict[type, Section] = {Experiment: competing, LayeredExperiment: layered, LocalExperiment: local}
