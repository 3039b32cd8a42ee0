"""All alignments under their names, as entry points of the group ``koda_audit.alignments`` name them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from koda_audit.alignment import bipartite, centring, linear, trained, translate
from koda_audit.alignment.maps import Fitted


@dataclass(frozen=True)
class Method:
    """An alignment that can be fitted; a third party's is registered in the same way.

    Attributes:
        name: as in the entry point.
        definition: the formula in one line; x images, y texts, m their means, q queries, z gallery.
        fitted_on: "nothing"; "images" alone, "rows" (either side by itself) or "pairs" of a calibration split, applied
            to any row; or "gallery", made from the very rows that are evaluated, without labels, and applied to no
            others.
        fit: ``fit(first, second, **params)`` of float64 unit rows: images and texts of the pairs, or queries and
            gallery; ``fit(images, **params)`` of "images". Its other arguments are the parameters; ``Embeddings`` among
            them come as their image rows, raw, in the order of the samples.
    """

    name: str
    definition: str
    fitted_on: Literal["nothing", "images", "rows", "pairs", "gallery"]
    fit: Callable[..., Fitted]


identity = Method("identity", "x, y", "nothing", centring.identity)
center = Method("center", "x - mx, y - my", "rows", centring.center)
center_renorm = Method("center_renorm", "Norm(x - mx), Norm(y - my)", "rows", centring.center_renorm)
mg_shift = Method("mg_shift", "Norm(x - lam g), Norm(y + lam g), g = mx - my or its unit", "rows", centring.mg_shift)
project_out = Method("project_out", "Norm(x - u u'x), Norm(y - u u'y), u = g/|g|", "rows", centring.project_out)
realign = Method("realign", "x, Norm(t - mt + mx), t = Norm((y - my) s + mx)", "rows", centring.realign)
zca = Method("zca", "(x - mx)(Cx + eps I)^-1/2, (y - my)(Cy + eps I)^-1/2", "rows", linear.zca)
coral = Method("coral", "x, (y - my)(Cy + eps I)^-1/2 (Cx + eps I)^1/2 + mx", "rows", linear.coral)
procrustes = Method("procrustes", "x - mx, (y - my) R, R orthogonal", "pairs", linear.procrustes)
ridge = Method("ridge", "x - mx, (y - my) W, W = (Y'Y + lam I)^-1 (Y'X + lam prior)", "pairs", linear.ridge)
cca = Method("cca", "(x - mx) A U_k S^scale, (y - my) B V_k S^scale", "pairs", linear.cca)
orthogonal_translate = Method(
    "orthogonal_translate", "q, z + alpha (g - V V'g), g = mq - mz", "gallery", translate.orthogonal_translate
)
translate_gallery = Method("translate_gallery", "q, z + v", "gallery", translate.translate_gallery)
spectral = Method("spectral", "D_q^-1/2 U_k, D_z^-1/2 V_k of the graph (1 + cosine)/2", "gallery", bipartite.spectral)
kuea = Method("kuea", "Norm(h(x)), y; h = argmin weight L_k + A, kernels of h(x) and teacher", "images", trained.kuea)
curriculum = Method(
    "curriculum",
    "Norm(h(x)), Norm(g(y)); least (1 - a) L_nce + a (L_cent + L_geo + L_neg)",
    "pairs",
    trained.curriculum,
)
ot = Method("ot", "q, m T q, T the entropic transport plan from z to q", "gallery", bipartite.ot)
