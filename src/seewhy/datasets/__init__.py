"""Folders of pictures: which there are, what each shows, and where. The only room that reads labels and truth from files."""

from seewhy.datasets.marks import Boxed as Boxed
from seewhy.datasets.pictures import Entry as Entry
from seewhy.datasets.pictures import counted as counted
from seewhy.datasets.pictures import entries as entries
from seewhy.datasets.truth import Truths as Truths
from seewhy.datasets.truth import open_truth as open_truth
