"""What an option can be, where code and configuration both must know it: each list once."""

CROPS = ("center", "foreground", "head_neck", "none")  # view.crop
SCORE_ON = CT_GRID, TRAINING_GRID = ("ct", "training")  # view.score_on
PET_SCALES = SUV, ZSCORE = ("suv", "zscore")  # view.pet
PET_SUV = (0.0, 25.0)  # of view.pet=suv: clipped to these, then divided by the larger one
AXES = ("depth", "height", "width")  # view.mirrors
LOSSES = ("dice_ce", "dice_focal", "tversky")  # a segmentation's task.loss
OPTIMIZERS = ADAMW, SGD = ("adamw", "sgd")  # training.optimizer
MOMENTS = FRESH, CENTER, AVERAGED = ("fresh", "center", "averaged")  # training.moments, beside none of them
VIEWS = ("affine", "blur", "elastic", "gamma", "low_resolution", "noise", "scanner")  # training.views
SCALES = ("percentiles", "zscore")  # view.intensities, of any other volume
FORMS = ("binary", "multi_class", "multi_label", "ordinal")  # a classification's task.form
IMBALANCES = ("counts", "none", "weights")  # a classification's task.imbalance
WEIGHTINGS = ("n", "sqrt", "uniform")  # federation.weighting
VALIDATIONS = ("pooled", "median")  # federation.guards.validation
NONE, FP16, INT8, TOPK = COMPRESSIONS = ("none", "fp16", "int8", "topk")  # federation.compression.kind
ATTRIBUTES = "attributes"
PROMPTS = (ATTRIBUTES, "manual")  # task grounding: prompts
MERGES = ("arithmetic", "average", "ties")  # method merge: how
OVERLAPS = ("absolute", "squared")  # method olora: form

COMPARED_TASKS = ("classification", "prognosis", "segmentation")  # whose models are compared patient by patient
HARMONIZERS = ("combat",)  # harmonize, of a linear part
STATISTICS = "statistics"  # the kind of a step that is asked once, before any training, and what an order asks for
EVALUATE = "evaluate"  # the curriculum that has no steps of its own: a bank's models become them
