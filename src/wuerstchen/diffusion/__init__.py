"""All the mathematics of diffusion, as functions.

    schedule ─▶ times, targets
             └▶ samplers ◀─ a denoiser, with or without guidance

Time t is a float in [0, 1]: 0 is data, 1 is noise. signal(t), the paper's alpha-bar, is the share
of the variance that the data still has at time t. Networks predict the noise, or what
implies it. B images, C channels, H x W cells.
"""

from wuerstchen.diffusion.guidance import Denoiser, Guidance, Network, guided, unguided
from wuerstchen.diffusion.samplers import (
    SAMPLERS,
    Draw,
    Sampler,
    ddim,
    ddpm,
    dpm_solver,
    dpm_solver_sde,
    euler_ancestral,
    evaluations,
    heun,
)
from wuerstchen.diffusion.schedule import (
    LATE,
    LEAST,
    MOST,
    OFFSET,
    STEEPEST,
    add_noise,
    data_weight,
    log_snr_at,
    p2_weight,
    signal,
    signal_at,
    time_of,
    training_times,
)
from wuerstchen.diffusion.targets import (
    LOSS_WEIGHTS,
    Prediction,
    flow_weight,
    noise_of,
    v_weight,
)
from wuerstchen.diffusion.times import (
    TIMES,
    log_snr_times,
    published_times,
    tuned_times,
    uniform_times,
)

__all__ = [
    "LATE",
    "LEAST",
    "LOSS_WEIGHTS",
    "MOST",
    "OFFSET",
    "SAMPLERS",
    "STEEPEST",
    "TIMES",
    "Denoiser",
    "Draw",
    "Guidance",
    "Network",
    "Prediction",
    "Sampler",
    "add_noise",
    "data_weight",
    "ddim",
    "ddpm",
    "dpm_solver",
    "dpm_solver_sde",
    "euler_ancestral",
    "evaluations",
    "flow_weight",
    "guided",
    "heun",
    "log_snr_at",
    "log_snr_times",
    "noise_of",
    "p2_weight",
    "published_times",
    "signal",
    "signal_at",
    "time_of",
    "training_times",
    "tuned_times",
    "unguided",
    "uniform_times",
    "v_weight",
]
