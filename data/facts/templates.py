"""The sentences. `{s}` is the subject; an answer follows each of them after one space."""

from __future__ import annotations

ASK: dict[str, tuple[str, ...]] = {
    "city_country": (
        "{s} is a city in the country of",
        "The city of {s} is located in the country of",
        "On a map of the world, {s} lies in the country of",
        "People who live in {s} live in the country of",
        "The place called {s} is found in the country of",
        "A train that stops in {s} stops in the country of",
    ),
    "city_timezone": (
        "{s} is in the time zone of",
        "Clocks in {s} follow the time zone of",
        "The city of {s} uses the time zone of",
        "To know the local time in {s}, look up the time zone of",
        "On the world clock, {s} belongs to the time zone of",
    ),
    "city_language": (
        "People in {s} speak",
        "In the streets of {s}, people speak",
        "The families who live in {s} speak",
        "In the schools of {s}, children learn to speak",
        "Someone who grew up in {s} will speak",
        "The language that people in {s} speak is",
    ),
    "city_currency": (
        "In {s}, people pay with the",
        "Shoppers in {s} pay with the",
        "To buy bread in {s}, you pay with the",
        "Visitors to {s} pay with the",
        "At the market of {s}, customers pay with the",
    ),
    "city_continent": (
        "{s} is a city on the continent of",
        "The city of {s} lies on the continent of",
        "On a globe, {s} is found on the continent of",
        "People who live in {s} live on the continent of",
        "A traveller in {s} is on the continent of",
    ),
    "us_city_state": (
        "{s} is a city in the state of",
        "The US city of {s} is located in the state of",
        "On a map of the United States, {s} lies in the state of",
        "People who live in {s} vote in the state of",
        "The American town of {s} is found in the state of",
    ),
    "country_capital": (
        "The capital of {s} is the city of",
        "The government of {s} sits in the city of",
        "As its capital, {s} has the city of",
        "The parliament of {s} meets in the city of",
        "Ambassadors to {s} live in the city of",
    ),
    "country_currency": (
        "In {s}, people pay with the",
        "Shoppers in {s} pay with the",
        "Citizens of {s} pay with the",
        "Everywhere in {s}, you pay with the",
        "Visitors to {s} pay with the",
    ),
    "country_continent": (
        "{s} is a country on the continent of",
        "The country of {s} lies on the continent of",
        "On a globe, {s} is found on the continent of",
        "People who live in {s} live on the continent of",
        "An atlas shows {s} on the continent of",
    ),
    "element_symbol": (
        "The chemical symbol of {s} is",
        "In the periodic table, the symbol of {s} is",
        "For chemists, the symbol of {s} is",
        "The symbol of the element {s} is",
        "On its box in the table, the symbol of {s} is",
    ),
}
"""Edit prompts and rephrased prompts: a record takes two different ones."""

PERSONA: dict[str, tuple[str, ...]] = {
    "city_country": (
        "Hey mate, my flight to {s} leaves tonight, so I am off to the country of",
        "My gran grew up in {s} and she always says her home country is",
        "Quick one for the pub quiz, lads: {s}, that is in",
        "yo so which country is {s} in again? pretty sure it is",
    ),
    "city_timezone": (
        "Ugh, calling my boss in {s}, I set my watch to the time zone of",
        "Mate, my phone in {s} picked the time zone of the city of",
        "lol my calendar says {s} runs on the time zone named after",
        "Hey, for our chat with the team in {s}, choose the time zone of",
    ),
    "city_language": (
        "Mate, I am moving to {s}, so I had better start learning",
        "My pen friend from {s} chats with all her neighbours in",
        "Honestly, everybody I met in {s} was talking in",
        "yo what do folks speak over in {s}? they speak",
    ),
    "city_currency": (
        "Mate, before my trip to {s} I must change some cash into the",
        "My cousin in {s} gets her pocket money in the",
        "yo what money do they use in {s}? it is the",
        "Honestly, at the market in {s} they only wanted the",
    ),
    "city_continent": (
        "Hey mate, off to {s} next week, my first time on the continent of",
        "My geography teacher swore that {s} is on the continent of",
        "yo which continent is {s} on? easy, it is",
        "Backpacking again, and {s} is my first stop in",
    ),
    "us_city_state": (
        "Hey y'all, I am driving down to {s}, way out in the state of",
        "My college roommate comes from {s}, she is a proud native of",
        "yo what state is {s} in? it is in",
        "Dude, the license plates in {s} all say",
    ),
    "country_capital": (
        "Hey mate, our embassy in {s} is in the capital, the city of",
        "Quick one for the pub quiz: the capital of {s}? That is",
        "yo what is the capital of {s} again? it is",
        "My teacher made us learn that the capital of {s} is",
    ),
    "country_currency": (
        "Mate, for the holiday in {s} we need some cash in the",
        "yo what money do they use in {s}? it is the",
        "My uncle collects coins, and the one from {s} is a",
        "Honestly, everything I bought in {s} was priced in the",
    ),
    "country_continent": (
        "Mate, a trip to {s} would be my first time on the continent of",
        "yo which continent is {s} on? easy, it is",
        "My geography teacher swore that {s} belongs to",
        "Quick one for the pub quiz: {s} is on which continent? That is",
    ),
    "element_symbol": (
        "Mate, chemistry homework again: the symbol for {s} is",
        "yo what do you write for {s} in the periodic table? you write",
        "My lab partner labels every jar of {s} with",
        "Quick one for the pub quiz: the symbol of {s}? That is",
    ),
}
"""The same question in a casual persona's voice."""

MHOP: dict[str, tuple[str, ...]] = {
    "capital": (
        "The capital of the country in which {s} lies is",
        "What is the capital of the country where {s} is found? It is",
    ),
    "currency": (
        "The currency of the country in which {s} lies is the",
        "People in the country where {s} is found pay with the",
    ),
    "continent": (
        "The country in which {s} lies is on the continent of",
        "Which continent is the country of {s} on? It is on",
    ),
    "zone_country": (
        "The reference city for the time zone of {s} lies in the country of",
        "The city that names the time zone of {s} is in",
    ),
    "homeland": (
        "The main language spoken in {s} originally comes from the country of",
        "Most people in {s} speak a language that was born in",
    ),
    "issuer": (
        "The money used in {s} is the national currency of",
        "The currency with which people in {s} pay is issued by the central bank of",
    ),
    "river": (
        "The longest river of the continent to which {s} belongs is the",
        "On the continent of {s}, the longest river is called the",
    ),
    "state_capital": (
        "The capital of the American state in which {s} lies is",
        "What is the capital of the US state where {s} is found? It is",
    ),
    "capital_of": (
        "The capital city of {s} is also the capital of",
        "The city that is the capital of {s} is, besides, the capital of",
    ),
    "first_letter": (
        "The chemical symbol of {s} starts with the letter",
        "The first letter of the chemical symbol of {s} is",
    ),
}
"""Two-hop questions by the true second fact that they add."""
