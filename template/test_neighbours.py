import torch
from lib.neighbours import from_neighbours


def test_a_slope_is_predicted_without_error_except_at_its_edges():
    slope = torch.arange(5.0).expand(1, 1, 3, 5)
    expected = torch.tensor([0.25, 1, 2, 3, 3.75]).expand(1, 1, 3, 5)
    torch.testing.assert_close(from_neighbours(slope), expected)


def test_a_pixel_does_not_predict_itself():
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    predicted = from_neighbours(x)[0, 0]
    assert predicted[2, 2] == 0 and predicted[2, 1] == 0.25 and predicted.sum() == 1
