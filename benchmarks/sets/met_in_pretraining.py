"""Entities that the pre-training of the shipped encoder may have met, and that the data sets therefore leave out.

One of their names is mentioned by the caption of a generic icon, which may draw the very thing (the logo of facebook),
or of a seen emoji, which has the word (dart) at least. A test looks for entities that are missing here.
"""

from __future__ import annotations

_LOGOS = """
adobe amazon android appstore arc atom beats behance bitcoin blackberry blogger bluetooth c capacitor chef cplusplus
creativecommons crystal css cucumber cursor dart debian delicious dotnet dribbble drizzle drone dropbox ethereum f
facebook figma flask github glide gmail go google googledrive huggingface imdb instagram java javascript js kirby
less lighthouse line linkedin linux markdown medium mermaid meta meteor microsoft mix netflix passport paypal
pinterest postman progress rails railway reddit rocket safari signal skype slack slides snapchat solid soundcloud
spotify squarespace stackoverflow steam telegram threads tidal tiktok twitter uv v vault vimeo vk wechat whatsapp
wikipedia xbox youtube zoom
"""

MET_IN_PRETRAINING = {
    "flags": frozenset({"aq", "au", "us"}),
    "logos": frozenset(_LOGOS.split()),
    "glyphs": frozenset("!#$&*<=?¥©¬×ΔΠΣαδπσ•€−"),
}
"""Data set -> keys of entities; a glyph is its own key."""
