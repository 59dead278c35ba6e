"""Methods x metrics over many pictures: what each map is worth, and which differences are more than noise."""

from seewhy.evaluation.running import evaluate as evaluate
from seewhy.evaluation.standings import Evaluation as Evaluation
from seewhy.evaluation.standings import Standing as Standing
