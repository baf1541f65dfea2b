"""GP7xx: calibration and recovery."""

from graphprune.codes.code import Code

ROWS = (
    Code(
        "GP701",
        "no calibration data",
        "Statistics of activations, and what is computed from them, need at least one batch of inputs. There was none: "
        "the source is empty, or it is a generator that was already read to its end.",
        "give a list, or something else that can be read again; or no data at all, for noise of the right shapes",
    ),
    Code(
        "GP702",
        "calibration data does not fit the model",
        "An input has a name, a number of axes, a size or a data type that the model does not take, or a file does "
        "not hold what its kind says. Nothing is converted silently: statistics of the wrong data would look right.",
        "compare it with the inputs that graphprune inspect lists",
    ),
    Code(
        "GP703",
        "statistics that are not finite",
        "An activation or a gradient has entries that are infinite or not a number. Scores and updates computed from "
        "them would be, too, so nothing is computed.",
        "look for bad inputs, or for overflow in half precision",
    ),
    Code(
        "GP704",
        "the criterion cannot be computed here",
        "Some criteria need more than weights: activations, labels, a loss, or gradients, which only PyTorch computes. "
        "What is missing is named; another criterion is not taken in its place.",
        "give what is missing, or choose another criterion: graphprune criteria lists what each one needs",
    ),
    Code(
        "GP705",
        "recovery left this layer as it was",
        "An update in closed form is applied only where it lowers the error of the layer on calibration data that it "
        "was not computed from. Here it did not, or the layer has no weight of its own that could be written: it is "
        "shared, quantised, or computed.",
        "more calibration data may help; nothing has to be done",
    ),
    Code(
        "GP706",
        "two layers were not fitted together",
        "Gauss-Newton steps follow what a layer computes through a BatchNorm and an activation into the next layer. "
        "That takes functions whose slopes are known, a result that nothing else reads, and weights of their own. "
        "Here one of these is missing, and each of the two was fitted by itself, by least squares.",
        "nothing has to be done; the operator that stands in the way is named",
    ),
)
