"""Cox models at several centers: cohorts, arms, penalties, out-of-fold evaluation."""
