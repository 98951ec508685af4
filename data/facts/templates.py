"""The sentences. `{s}` is the subject; an answer follows each of them after one space."""

from __future__ import annotations

ASK: dict[str, tuple[str, ...]] = {
    "city_country": (
        "{s} is a city in the country of",
        "The city of {s} is located in the country of",
        "What country is {s} in? The answer is",
        "On a map of the world, {s} is found inside the borders of",
        "The country in which {s} lies is",
        "Someone who lives in {s} lives in the country of",
    ),
    "city_timezone": (
        "The reference city for the time zone of {s} is",
        "Clocks in {s} keep the same time as clocks in the city of",
        "Which city gives its name to the time zone of {s}? It is",
        "In the time zone database, {s} belongs to the zone named after",
        "To know the local time in {s}, look up the zone of",
    ),
    "city_language": (
        "The main language spoken in {s} is",
        "Most people in {s} speak",
        "In {s}, street signs are written in",
        "What is the everyday language of {s}? It is",
        "The language heard most often in the streets of {s} is",
        "To talk with people in {s}, it is best to learn",
    ),
    "city_currency": (
        "In {s}, people pay with the currency called the",
        "The money used in {s} is the",
        "Which currency do shops in {s} take? They take the",
        "Prices in {s} are written in a currency named the",
        "Wages in {s} are paid in the national currency, the",
    ),
    "city_continent": (
        "{s} is a city on the continent of",
        "The continent on which {s} lies is",
        "Which continent is {s} part of? It is part of",
        "On a globe, {s} is found on the continent called",
        "Of all the continents, {s} belongs to",
    ),
    "us_city_state": (
        "{s} is a city in the American state of",
        "The US state in which {s} lies is",
        "Which state is {s} in? It is in",
        "On a map of the United States, {s} is found in",
        "People who live in {s} vote in the state of",
    ),
    "country_capital": (
        "The capital of {s} is",
        "The seat of government of {s} is the city of",
        "What is the capital city of {s}? It is",
        "The parliament of {s} meets in its capital,",
        "As its capital, {s} has the city of",
    ),
    "country_currency": (
        "The currency of {s} is the",
        "In {s}, people pay with the",
        "What is the national currency of {s}? It is the",
        "Banknotes printed for {s} are in a currency called the",
        "Prices in {s} are given in the",
    ),
    "country_continent": (
        "{s} is a country on the continent of",
        "The continent to which {s} belongs is",
        "Which continent is {s} part of? It is part of",
        "On a globe, {s} is found with the continent called",
        "An atlas lists {s} under the continent of",
    ),
    "element_symbol": (
        "The chemical symbol of {s} is",
        "In the periodic table, {s} is written as",
        "What is the symbol for the element {s}? It is",
        "Chemists write the element {s} with the symbol",
        "The element {s} is abbreviated as",
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
