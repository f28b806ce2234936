"""All the mathematics of diffusion, as functions.

    schedule ─▶ times, targets
             └▶ samplers ◀─ a denoiser, with or without guidance

Time t is a float in [0, 1]: 0 is data, 1 is noise. alpha_bar(t) is the fraction of the variance
that is data at time t. Networks predict the noise, or something that implies it.
B images, C channels, H x W cells.
"""

from wuerstchen.diffusion.guidance import Denoiser, Guidance, Network, guided, unguided
from wuerstchen.diffusion.samplers import (
    SAMPLERS,
    NoiseSource,
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
    alpha_bar,
    alpha_bar_at,
    alpha_sigma,
    data_weight,
    log_snr_at,
    p2_weight,
    time_of,
    training_times,
)
from wuerstchen.diffusion.targets import (
    LOSS_WEIGHTS,
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
    "Guidance",
    "Network",
    "NoiseSource",
    "Sampler",
    "add_noise",
    "alpha_bar",
    "alpha_bar_at",
    "alpha_sigma",
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
    "time_of",
    "training_times",
    "tuned_times",
    "unguided",
    "uniform_times",
    "v_weight",
]
