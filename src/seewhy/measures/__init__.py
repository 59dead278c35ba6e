"""The metrics: how true a map is. One function, one decorator, nothing else to edit."""

from seewhy.measures import curves as curves  # isort: skip - in the order of the table
from seewhy.measures import road as road  # isort: skip
from seewhy.measures import regions as regions  # isort: skip
from seewhy.measures import drops as drops  # isort: skip
from seewhy.measures import correlations as correlations  # isort: skip
from seewhy.measures import axioms as axioms  # isort: skip
from seewhy.measures import randomisation as randomisation  # isort: skip
from seewhy.measures import robustness as robustness  # isort: skip
from seewhy.measures import complexity as complexity  # isort: skip
from seewhy.measures import localisation as localisation  # isort: skip
from seewhy.measures.registry import Metric as Metric
from seewhy.measures.registry import MetricTable as MetricTable
from seewhy.measures.registry import Wants as Wants
from seewhy.measures.registry import find_metric as find_metric
from seewhy.measures.registry import metric as metric
from seewhy.measures.registry import metrics as metrics
from seewhy.measures.trial import Trial as Trial
