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
        "shared, computed, or an operand of an integer product.",
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
    Code(
        "GP707",
        "training went astray",
        "The loss or its gradient is infinite or not a number. A step with it would make all weights so, too, and none "
        "was taken: what was written before is a good state to go on from.",
        "lower the learning rate, clip gradients, or look for bad numbers in the data",
    ),
    Code(
        "GP708",
        "data to train with ends or fails",
        "The source of training data raised an error, has no batch, or is a generator that was read to its end when it "
        "was needed once more. Nothing is trained on other data in its place.",
        "give a list, a DataLoader, or a function that makes the data anew for each pass",
    ),
    Code(
        "GP709",
        "the metric cannot be computed",
        "What a training or a search for a budget is judged by raised an error, lacks labels, or returned something "
        "else than one finite number. Without it good states cannot be told from bad ones.",
        "call the metric on what the model returns, and have it return one number",
    ),
    Code(
        "GP710",
        "a checkpoint of another training",
        "A training goes on as if nothing had been, bit by bit. That takes the same model, data and options as it was "
        "begun with, and one of them differs.",
        "give what it was begun with, or begin anew in another folder",
    ),
    Code(
        "GP711",
        "validation data is calibration data",
        "A drop is judged on data that nothing was computed from: weights that were fitted to a batch look better "
        "there than anywhere else. Here the same batch is in both.",
        "give other data to judge on; or none, and a part of the calibration data is held out",
    ),
    Code(
        "GP712",
        "recovery raised the error of the outputs",
        "After recovery the outputs of the network are further from those of the dense one than right after the cut, "
        "on the last fifth of the calibration data. That happens although each fit lowers the error of its own layer, "
        "most of all where there is little data. The result is what was asked for.",
        "choose another recovery (least_squares), give more calibration data, or recover='none'",
    ),
)
