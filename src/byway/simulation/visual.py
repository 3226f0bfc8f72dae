"""How much there is to see in each item: a score in [0, 1] (paper 2, section 4.2, figure 8).

Paper 2 takes the probability that a binary classifier on content embeddings gives, and does not tell its labels.
Here an item counts as rich where the features of its pictures vary more, over places and frames, than in half of
the items that were looked at; a logistic regression learns that from the embeddings.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from byway.data.media import Media, variety

FOLDS = 5


def interest(seen: Media, vectors: NDArray[np.float32]) -> NDArray[np.float64] | None:
    """[N] probability that each item of the catalog is rich to look at; None where too few items were looked at.

    `vectors` [N, w] are the content embeddings. The score of an item that was looked at comes from a classifier
    that was trained without it.
    """
    amount = variety(seen, np.arange(len(seen.item)))
    rich = amount > np.median(amount) if len(amount) else np.zeros(0, np.bool_)
    if min(rich.sum(), (~rich).sum()) < FOLDS:
        return None
    classifier = LogisticRegression(max_iter=1000)
    content = np.asarray(vectors, np.float64)
    own = content[seen.item]
    apart = cross_val_predict(classifier, own, rich, cv=StratifiedKFold(FOLDS), method="predict_proba")
    score = np.asarray(classifier.fit(own, rich).predict_proba(content))[:, 1]
    score[seen.item] = np.asarray(apart)[:, 1]
    return score
